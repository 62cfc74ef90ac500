"""The paper's study of RMSProp: all architectures, both criteria, β₂ = 0.99.

    python sweeps/paper_rmsprop.py --scale cpu --only vit_cifar10   # one architecture, here
    python sweeps/paper_rmsprop.py --scale paper                    # all of them, on GPUs

Two criteria, five learning rates, five seeds; docs/workloads.md says how the rates were chosen, and
which of those at paper scale have not been tuned.
"""

from sweeps.paper_studies import around, run_study

RATES = {
    "cpu": {
        "mlp_cifar10": around(mse=8e-05, cross_entropy=0.00024),
        "cnn_cifar10": around(mse=0.0001, cross_entropy=0.0001),
        "resnet_cifar10": around(mse=0.0002, cross_entropy=0.0002),
        "vit_cifar10": around(mse=0.0002, cross_entropy=0.0002),
        "lstm_sorting": around(mse=0.0003, cross_entropy=0.0003),
        "transformer_sorting": around(mse=0.0002, cross_entropy=0.0001),
        "mamba_sorting": around(mse=0.0001, cross_entropy=5e-05),
    },
    "paper": {
        "mlp_cifar10": around(mse=2e-05, cross_entropy=2e-05),
        "cnn_cifar10": around(mse=2e-05, cross_entropy=2e-05),
        "resnet_cifar10": around(mse=2e-05, cross_entropy=2e-05),
        "vit_cifar10": around(mse=2e-05, cross_entropy=2e-05),
        "lstm_sorting": around(mse=0.0001, cross_entropy=0.0001),
        "transformer_sorting": around(mse=0.0001, cross_entropy=0.0001),
        "mamba_sorting": around(mse=0.0001, cross_entropy=0.0001),
    },
}

if __name__ == "__main__":
    run_study("paper_rmsprop", "rmsprop", RATES)
