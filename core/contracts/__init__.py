"""Nouns shared by the stages: frozen dataclasses that check shape, dtype and order once."""
