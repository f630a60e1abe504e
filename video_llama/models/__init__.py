"""The encoders, the branches and the decoder, and the model they make."""
