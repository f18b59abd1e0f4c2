from omegaconf import DictConfig


def run(config: DictConfig) -> int:
    print(config)
    return 0
