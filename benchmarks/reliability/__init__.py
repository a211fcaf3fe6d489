"""Trains the real/bogus model on simulated detector-visits and judges it on others."""
