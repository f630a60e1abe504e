"""From files and text to what a data set puts in a sample: media decoded, sampled, cropped; captions cleaned."""
