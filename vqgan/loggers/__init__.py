"""The choices of `conf/logger`: where scalars and pictures go, beside `metrics.jsonl`."""

from vqgan.files.writing import Rows
from vqgan.loggers.jsonl import JsonLines
from vqgan.loggers.logger import Logger, Loggers
from vqgan.loggers.mlflow import MLflow
from vqgan.loggers.tensorboard import TensorBoard
from vqgan.loggers.wandb.logger import WeightsAndBiases

__all__ = ["JsonLines", "Logger", "Loggers", "MLflow", "Rows", "TensorBoard", "WeightsAndBiases"]
