"""Low-rank adaptation of a vision-language model to MR images, questions and answers."""
