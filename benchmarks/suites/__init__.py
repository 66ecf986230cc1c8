"""One file a suite: what it measures, and which tables that makes.

A suite has `run(settings)`, which yields its tables. Its other functions run in worker
processes.
"""

# By name: the module. They import TensorFlow, so only those that run are imported.
SUITES = {
    "op": "benchmarks.suites.op",
    "step": "benchmarks.suites.step",
    "recurrent": "benchmarks.suites.recurrent",
    "weights": "benchmarks.suites.weights",
    "threshold": "benchmarks.suites.threshold",
    "tracker": "benchmarks.suites.tracker",
    "control": "benchmarks.suites.control",
    "memory": "benchmarks.suites.memory",
    "compile": "benchmarks.suites.first_step",
    "import": "benchmarks.suites.import_time",
}
