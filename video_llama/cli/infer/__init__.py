"""``video-llama infer``: a file of questions on many files, answered in batches."""
