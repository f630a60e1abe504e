"""Models as folders in the layout of the Hugging Face hub: written, verified, found and uploaded."""
