"""Features from recordings and transcripts by pretrained encoders; needs the extra `extract`."""
