"""From messages to token ids: conversation templates, tokenizers, labels."""
