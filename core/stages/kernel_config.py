"""What may be chosen about the matching kernel."""

from dataclasses import dataclass, field

from core.stages.kernel_maps import KernelMapsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelConfig:
    """Basis, stars and gates of the kernel fit. Lengths are for a PSF of sigma 1.7 pixel and scale with it."""

    sigmas_pix: tuple[float, ...] = (0.7, 1.5, 3.0, 6.5)
    degrees: tuple[int, ...] = (6, 4, 2, 0)
    half_width_pix: int = 17
    """The widest Gaussian and a kernel of this width match the PSFs' wings; a narrower one leaves a plateau about each
    star, as wide as itself."""
    half_stamp_pix: int = 18
    reference_sigma_pix: float = 1.7
    spatial_order: int = 2
    flux_order: int = 2
    """Order in which the kernel's sum may vary over the detector."""
    wing_order: int = 0
    """The same for the widest Gaussian: wings are the atmosphere's, and faint; where stars are few a polynomial through
    them would run away."""
    sky_order: int = 1
    """The same for what the images' skies differ by."""
    min_snr: float = 30.0
    max_snr: float = 1000.0
    max_stars: int = 120
    """The brightest of each part of the detector: the noise of faint ones would smear the kernel."""
    max_local_stars: int = 250
    """So many, fainter ones too, show its local changes."""
    min_stars: int = 8
    n_clips: int = 4
    clip_sigma: float = 3.5
    systematic_fraction: float = 0.01
    """Error of the model as a fraction of the flux in a pixel; keeps few bright stars from ruling the fit."""
    noise_removed: float = 0.95
    """Part of what white noise adds to the normal equations that is taken out. Errors in the regressors pull
    coefficients to zero, here those of the finest detail, and every star would keep some percent of its peak (Fuller
    1987, Measurement Error Models, section 1.2); not all of it, or detail that drowns in the noise has no bounds."""
    min_kernel_sum: float = 0.7
    max_kernel_sum: float = 1.4
    min_reciprocal_condition: float = 1e-10
    max_median_chi2: float = 20.0
    local: KernelMapsConfig = field(default_factory=KernelMapsConfig)
