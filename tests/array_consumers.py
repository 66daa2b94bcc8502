"""Code of scipy and scikit-learn that takes any array library, on tensors; run by test_array_api.

Prints, for each call, its name, the type of its result and how far that is from NumPy's result.
"""

import numpy as np
import scipy.cluster.vq
import scipy.differentiate
import scipy.fft
import scipy.integrate
import scipy.ndimage
import scipy.signal
import scipy.special
import scipy.stats
import sklearn
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import confusion_matrix
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler

from tracecc import array_api as xp


def classes(x):
    return (x[:, 0] > 0).astype(np.int64) if isinstance(x, np.ndarray) else (x[:, 0] > 0).long()


def exponential(x):
    return np.exp(x) if isinstance(x, np.ndarray) else xp.exp(x)


CALLS = {
    "scipy.special.logsumexp": lambda x: scipy.special.logsumexp(x, axis=0),
    "scipy.special.softmax": lambda x: scipy.special.softmax(x, axis=1),
    "scipy.special.xlogy": lambda x: scipy.special.xlogy(x * x, x * x),
    "scipy.stats.zscore": lambda x: scipy.stats.zscore(x, axis=0),
    "scipy.stats.skew": lambda x: scipy.stats.skew(x, axis=0),
    "scipy.stats.kurtosis": lambda x: scipy.stats.kurtosis(x, axis=0),
    "scipy.stats.ttest_1samp": lambda x: scipy.stats.ttest_1samp(x, 0.0, axis=0).pvalue,
    "scipy.stats.pearsonr": lambda x: scipy.stats.pearsonr(x[:, 0], x[:, 1]).statistic,
    "scipy.stats.entropy": lambda x: scipy.stats.entropy(x * x, axis=0),
    "scipy.fft.fft": lambda x: scipy.fft.fft(x, axis=0),
    "scipy.fft.dct": lambda x: scipy.fft.dct(x, axis=0),
    "scipy.signal.detrend": lambda x: scipy.signal.detrend(x, axis=0),
    "scipy.signal.hilbert": lambda x: scipy.signal.hilbert(x, axis=0),
    "scipy.ndimage.gaussian_filter": lambda x: scipy.ndimage.gaussian_filter(x, 1.0),
    "scipy.cluster.vq.whiten": lambda x: scipy.cluster.vq.whiten(x),
    "scipy.integrate.trapezoid": lambda x: scipy.integrate.trapezoid(x, axis=0),
    "scipy.differentiate.derivative": lambda x: (
        scipy.differentiate.derivative(exponential, x[:3, 0]).df
    ),
    "sklearn.StandardScaler": lambda x: StandardScaler().fit_transform(x),
    "sklearn.MinMaxScaler": lambda x: MinMaxScaler().fit_transform(x),
    "sklearn.PolynomialFeatures": lambda x: PolynomialFeatures(2).fit_transform(x),
    "sklearn.PCA": lambda x: PCA(2, svd_solver="full").fit(x).explained_variance_,
    "sklearn.Ridge": lambda x: Ridge(solver="svd").fit(x, x[:, 0] * 2 + x[:, 1]).coef_,
    "sklearn.LinearDiscriminantAnalysis": lambda x: (
        LinearDiscriminantAnalysis().fit(x, classes(x)).predict_proba(x)
    ),
    "sklearn.GaussianNB": lambda x: GaussianNB().fit(x, classes(x)).predict_proba(x),
    "sklearn.GaussianMixture": lambda x: (
        GaussianMixture(2, random_state=0, init_params="random").fit(x).means_
    ),
    "sklearn.train_test_split": lambda x: train_test_split(x, random_state=0)[0],
    "sklearn.rbf_kernel": lambda x: rbf_kernel(x),
    "sklearn.cosine_similarity": lambda x: cosine_similarity(x),
    "sklearn.confusion_matrix": lambda x: confusion_matrix(classes(x), classes(-x)),
}


def main() -> None:
    numbers = np.random.default_rng(0).normal(size=(40, 3))
    with sklearn.config_context(array_api_dispatch=True):
        for name, call in CALLS.items():
            found, expected = call(xp.asarray(numbers.copy())), call(numbers)
            distance = np.abs(found.numpy() - expected).max()
            print(name, type(found).__name__, f"{distance:.1e}")


if __name__ == "__main__":
    main()
