"""Small networks of all the shapes that channels hang together in."""

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """Two convolutions around which the input goes, too, with norms; a depthwise one; a mean."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(12)
        self.outer = nn.Conv2d(12, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)))
        y = torch.relu(self.inner_norm(self.inner(x)))
        x = functional.max_pool2d(x + self.outer(y), 2)
        x = self.depthwise(x).relu()
        return self.head(x.mean((2, 3)))


class Viewed(nn.Module):
    """Flattened by `view`, where each channel is several numbers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3)
        self.hidden = nn.Linear(8 * 36, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.conv(x).tanh()
        x = x.view(x.size(0), -1)
        return self.head(functional.gelu(self.norm(self.hidden(x))))


def plain():
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(16, 5),
    )


NETWORKS = {"plain": plain, "residual": Residual, "viewed": Viewed}


def make(name):
    """A network with weights, and running statistics, that are none of their defaults."""
    torch.manual_seed(1)
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def example(num=3):
    return torch.randn(num, 2, 8, 8, generator=torch.Generator().manual_seed(2))
