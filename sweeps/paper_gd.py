"""The paper's study of gradient descent: all architectures, both criteria.

    python sweeps/paper_gd.py --scale cpu --only vit_cifar10   # one architecture, on this machine
    python sweeps/paper_gd.py --scale paper                    # all of them, on GPUs

Two criteria, five learning rates, five seeds; docs/workloads.md says how the rates were chosen, and
which of those at paper scale have not been tuned.
"""

from sweeps.paper_studies import around, run_study

RATES = {
    "cpu": {
        "mlp_cifar10": around(mse=0.1, cross_entropy=0.1),
        "cnn_cifar10": around(mse=0.2, cross_entropy=0.2),
        "resnet_cifar10": around(mse=0.07, cross_entropy=0.06),
        "vit_cifar10": around(mse=0.2, cross_entropy=0.2),
        "lstm_sorting": around(mse=0.5, cross_entropy=0.5),
        "transformer_sorting": around(mse=0.1, cross_entropy=0.05),
        "mamba_sorting": around(mse=0.05, cross_entropy=0.04),
    },
    "paper": {
        "mlp_cifar10": around(mse=0.08, cross_entropy=0.08),
        "cnn_cifar10": around(mse=0.02, cross_entropy=0.02),
        "resnet_cifar10": around(mse=0.02, cross_entropy=0.02),
        "vit_cifar10": around(mse=0.01, cross_entropy=0.01),
        "lstm_sorting": around(mse=0.4, cross_entropy=0.8),
        "transformer_sorting": around(mse=0.05, cross_entropy=0.05),
        "mamba_sorting": around(mse=0.05, cross_entropy=0.05),
    },
}

if __name__ == "__main__":
    run_study("paper_gd", "gradient_descent", RATES)
