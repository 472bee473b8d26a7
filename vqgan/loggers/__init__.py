"""The choices of `conf/logger`: where scalars and pictures go, beside `metrics.jsonl`."""

from vqgan.loggers.jsonl import JsonLines, Rows
from vqgan.loggers.logger import Logger, Loggers
from vqgan.loggers.tensorboard import TensorBoard
from vqgan.loggers.wandb import WeightsAndBiases

__all__ = ["JsonLines", "Logger", "Loggers", "Rows", "TensorBoard", "WeightsAndBiases"]
