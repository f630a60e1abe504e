"""Questions on many files, answered in batches: resumable, over several processes."""
