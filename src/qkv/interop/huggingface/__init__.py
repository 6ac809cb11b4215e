"""Models from Hugging Face and to it, and the proof that both sides say the same."""
