"""Image-language route: answers of a vision-language model are compared with a bank."""
