"""Questions on many files as a job: in batches, resumable, over several processes."""
