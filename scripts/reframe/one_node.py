"""ReFrame's view of one node without a scheduler, whose ranks mpirun starts."""

site_configuration = {
    "systems": [
        {
            "name": "one-node",
            "descr": "this node, with mpirun",
            "hostnames": [".*"],
            "partitions": [
                {
                    "name": "default",
                    "scheduler": "local",
                    "launcher": "mpirun",
                    "environs": ["default"],
                }
            ],
        }
    ],
    "environments": [{"name": "default", "cc": "cc", "cxx": "", "ftn": ""}],
}
