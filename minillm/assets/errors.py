"""What can go wrong when an asset is fetched, one class for each way out."""


class AssetError(RuntimeError):
    """Base of every error of `minillm.assets`; the message says what to do about it."""


class UnknownAssetError(AssetError, ValueError):
    """The name is not in the registry."""


class DownloadError(AssetError):
    """pip could not deliver the archive: no network, no such version, or no pip."""


class MemberError(AssetError):
    """The archive is damaged, lacks a file it should have, or holds an unsafe one."""


class HashMismatchError(AssetError):
    """The files arrived, but they are not the files that this course was tested with."""


class CacheError(AssetError):
    """The cache folder cannot be written: full disk, no permission."""
