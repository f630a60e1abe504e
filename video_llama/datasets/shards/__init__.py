"""Data sets in tar files, in webdataset's layout: written, indexed, shuffled and read by number."""
