"""Detector and amplifier geometry of a camera, from packaged data files."""

from core.camera.geometry import Amplifier, Box, Camera, Detector
from core.camera.loader import load_camera

__all__ = ["Amplifier", "Box", "Camera", "Detector", "load_camera"]
