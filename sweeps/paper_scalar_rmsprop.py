"""The paper's study of Scalar RMSProp: all architectures, both criteria, β₂ = 0.99.

    python sweeps/paper_scalar_rmsprop.py --scale cpu --only vit_cifar10   # one architecture, here
    python sweeps/paper_scalar_rmsprop.py --scale paper                    # all of them, on GPUs

Two criteria, five learning rates, five seeds; docs/workloads.md says how the rates were chosen, and
which of those at paper scale have not been tuned.
"""

from sweeps.paper_studies import around, run_study

RATES = {
    "cpu": {
        "mlp_cifar10": around(mse=0.01, cross_entropy=0.06),
        "cnn_cifar10": around(mse=0.01, cross_entropy=0.01),
        "resnet_cifar10": around(mse=0.01, cross_entropy=0.01),
        "vit_cifar10": around(mse=0.02, cross_entropy=0.02),
        "lstm_sorting": around(mse=0.03, cross_entropy=0.03),
        "transformer_sorting": around(mse=0.01, cross_entropy=0.01),
        "mamba_sorting": around(mse=0.008, cross_entropy=0.01),
    },
    "paper": {
        "mlp_cifar10": around(mse=0.005, cross_entropy=0.005),
        "cnn_cifar10": around(mse=0.005, cross_entropy=0.005),
        "resnet_cifar10": around(mse=0.005, cross_entropy=0.005),
        "vit_cifar10": around(mse=0.005, cross_entropy=0.005),
        "lstm_sorting": around(mse=0.02, cross_entropy=0.02),
        "transformer_sorting": around(mse=0.005, cross_entropy=0.005),
        "mamba_sorting": around(mse=0.005, cross_entropy=0.005),
    },
}

if __name__ == "__main__":
    run_study("paper_scalar_rmsprop", "scalar_rmsprop", RATES)
