"""Every stage of the pipeline at full size: its CPU over R against a budget, beside a named reference."""
