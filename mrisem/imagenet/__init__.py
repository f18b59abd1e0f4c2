"""VGG16 and AlexNet trained on ImageNet: their convolutional layers, and reading of weights."""
