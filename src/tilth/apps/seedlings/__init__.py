"""The seedlings made again from a seed: tokenizer, two base models, a teacher, and their cards."""
