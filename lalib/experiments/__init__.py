"""Experiments: the pool that hides labels, the task, the loop, comparisons over paired seeds, and what they show."""

from lalib.experiments.comparison import compare, compare_maps, compare_query_sets
from lalib.experiments.loop import Pool, Round, active_learning, cold_start
from lalib.experiments.task_models import TaskModel, evaluate, train
from lalib.experiments.tasks import RoundEncoder, Task, TaskData

__all__ = ["Pool", "Round", "RoundEncoder", "Task", "TaskData", "TaskModel", "active_learning", "cold_start"]
__all__ += ["compare", "compare_maps", "compare_query_sets", "evaluate", "train"]
