"""The image-language route: the answer of a vision-language model, compared with a bank of answers."""
