"""Features of one recording over time, from its short-time spectrum."""

import warnings

import numpy as np

# Frames on which a derivative rests, librosa's default.
_DELTA_WIDTH = 9


# Lowest edge in Hz of the bands of spectral contrast, librosa's default; each is an octave wide.
CONTRAST_LOWEST = 200.0


CONTRAST_OCTAVES = 6


# Frames whose Fourier transforms are held at a time.
_FRAMES_AT_ONCE = 4096


class Course:
    """The features of one recording over time; what several of them need is computed once.

    Parameters
    ----------
    settings : AudioDescriptor
        Parameters of the features.

    waveform : ndarray of shape (n_times,), dtype float32
        At the rate of the settings.
    """

    def __init__(self, settings, waveform):
        import librosa

        self._librosa = librosa
        self._settings = settings
        self._rate = settings.target_rate
        self._waveform = np.pad(waveform, (0, max(0, settings.n_fft - len(waveform))))
        self._grid = {"n_fft": settings.n_fft, "hop_length": settings.hop_length}
        self._magnitude = self._short_time_magnitude()
        self._known = {}

    def _short_time_magnitude(self):
        """Magnitudes of the short-time Fourier transform, whose complex values are never there all at once."""
        n_fft, hop_length = self._grid["n_fft"], self._grid["hop_length"]
        padded = np.pad(self._waveform, n_fft // 2)
        n_frames = 1 + (len(padded) - n_fft) // hop_length
        magnitude = np.empty((1 + n_fft // 2, n_frames), np.float32, order="F")
        for start in range(0, n_frames, _FRAMES_AT_ONCE):
            end = min(start + _FRAMES_AT_ONCE, n_frames)
            part = padded[start * hop_length : (end - 1) * hop_length + n_fft]
            magnitude[:, start:end] = np.abs(self._librosa.stft(part, **self._grid, center=False))
        return magnitude

    def of(self, feature):
        """Give the frames of a feature, of shape (n_values, n_frames)."""
        if feature not in self._known:
            self._known[feature] = getattr(self, f"_{feature}")()
        return self._known[feature]

    def _logmel(self):
        librosa, settings = self._librosa, self._settings
        with warnings.catch_warnings():
            # Where frames are short and bands are many, the lowest bands hold no frequency: a constant column.
            warnings.filterwarnings("ignore", message="Empty filters detected")
            mel = librosa.feature.melspectrogram(S=self._magnitude**2, sr=self._rate, n_mels=settings.n_mels)
        return librosa.power_to_db(mel)

    def _mfcc(self):
        return self._librosa.feature.mfcc(S=self.of("logmel"), n_mfcc=self._settings.n_mfcc)

    def _mfcc_delta(self):
        return self._librosa.feature.delta(self.of("mfcc"), width=_DELTA_WIDTH, mode="nearest")

    def _mfcc_delta2(self):
        return self._librosa.feature.delta(self.of("mfcc"), width=_DELTA_WIDTH, order=2, mode="nearest")

    def _chroma(self):
        # Tuned to 440 Hz: an estimate would need a recording long enough, and pitches in it.
        return self._librosa.feature.chroma_stft(S=self._magnitude**2, sr=self._rate, tuning=0.0)

    def _centroid(self):
        return self._librosa.feature.spectral_centroid(S=self._magnitude, sr=self._rate)

    def _bandwidth(self):
        return self._librosa.feature.spectral_bandwidth(S=self._magnitude, sr=self._rate)

    def _rolloff(self):
        return self._librosa.feature.spectral_rolloff(S=self._magnitude, sr=self._rate)

    def _contrast(self):
        n_bands = self._settings._n_octaves()
        return self._librosa.feature.spectral_contrast(
            S=self._magnitude, sr=self._rate, fmin=CONTRAST_LOWEST, n_bands=n_bands
        )

    def _flatness(self):
        return self._librosa.feature.spectral_flatness(S=self._magnitude)

    def _zcr(self):
        return self._librosa.feature.zero_crossing_rate(
            self._waveform, frame_length=self._settings.n_fft, hop_length=self._settings.hop_length
        )

    def _rms(self):
        return self._librosa.feature.rms(
            y=self._waveform, frame_length=self._settings.n_fft, hop_length=self._settings.hop_length
        )
