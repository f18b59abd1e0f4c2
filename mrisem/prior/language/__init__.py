"""The image-language route: answers of a vision-language model, compared with a bank."""
