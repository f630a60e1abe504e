"""Where weights come from: paths, published files known by name, and the Hugging Face hub."""
