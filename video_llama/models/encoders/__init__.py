"""The frozen encoders of frames and of sound."""
