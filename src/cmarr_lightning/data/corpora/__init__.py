"""Data modules of known corpora, and made-up ones."""
