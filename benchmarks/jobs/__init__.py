"""Unlike models to ask for a sparsity: how they are built, and what they learn from."""

from benchmarks.jobs import convolutions, dense, sequences
from benchmarks.jobs.job import Job

JOBS: dict[str, Job] = {
    job.name: job for job in (*dense.JOBS, *convolutions.JOBS, *sequences.JOBS)
}
