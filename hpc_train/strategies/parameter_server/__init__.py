"""Rank 0 holds the weights and makes the updates; the others get weights and push gradients."""

from hpc_train.strategies.parameter_server.letters import Ending
from hpc_train.strategies.parameter_server.mirror import State
from hpc_train.strategies.parameter_server.server import Commit, Server
from hpc_train.strategies.parameter_server.strategy import ParameterServer, Terms

__all__ = ["Commit", "Ending", "ParameterServer", "Server", "State", "Terms"]
