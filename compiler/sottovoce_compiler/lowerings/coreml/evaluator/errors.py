"""What can be wrong with a package, for the evaluator."""

from sottovoce.errors import BundleError, SottovoceError


class PackageError(BundleError):
    """A package that is damaged, or not made as its own types say."""


class UnknownOperationError(SottovoceError, NotImplementedError):
    """The program has an operation that the evaluator does not know: what it computes could not be told."""
