"""VGG16 and AlexNet trained on ImageNet: convolutional layers, and the weights on this machine."""
