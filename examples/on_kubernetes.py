"""Runs one wio command on Kubernetes, by dask-kubernetes and its operator.

``python -m on_kubernetes WORKERS export /weights/model.ckpt -o /weights/model.wio --shard-size 2GB``, in a pod that has
the same volume at the same place: the client plans and puts the shards in place, the workers read and write.
"""

from __future__ import annotations

import sys
from typing import Any

from dask_kubernetes.operator import KubeCluster, make_cluster_spec

from wio.cli.main import main

IMAGE = "registry.example.org/wio:0.1.0"  # python, wio[dask], and the adapters that you use
CLAIM, FOLDER = "weights", "/weights"  # a ReadWriteMany claim, and where every pod sees it


def cluster_spec(workers: int) -> dict[str, Any]:
    """Workers of one thread, for wio hashes and writes on threads of its own, with the shared volume."""
    command = ["dask", "worker", "--nthreads", "1"]
    spec: dict[str, Any] = make_cluster_spec(name="wio", image=IMAGE, n_workers=workers, worker_command=command)
    pod = spec["spec"]["worker"]["spec"]
    pod["volumes"] = [{"name": "weights", "persistentVolumeClaim": {"claimName": CLAIM}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "weights", "mountPath": FOLDER}]
    return spec


def run(workers: int, command: list[str]) -> int:
    with KubeCluster(custom_cluster_spec=cluster_spec(workers)) as cluster:
        return main([*command, "--dask", cluster.scheduler_address])


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
