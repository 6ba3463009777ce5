package com.qualcomm.qti;

import org.tensorflow.lite.Delegate;

/**
 * Stand-in for Qualcomm's class where its artifact cannot be had, without behaviour. What Qualcomm's published interface
 * (docs.qualcomm.com, document 80-63442-10, topic java_interface) states: checkCapability with its capabilities,
 * setBackendType, setSkelLibraryDir, setCacheDir and setModelToken. Assumed, not read there: HtpPrecision with its
 * setter, the remaining enum constants, and that the delegate is closed as any other one.
 */
public class QnnDelegate implements Delegate, AutoCloseable {
  public enum Capability {
    HTP_RUNTIME_QUANTIZED,
    HTP_RUNTIME_FP16,
    GPU_RUNTIME,
    DSP_RUNTIME,
    INVALID
  }

  public static class Options {
    public enum BackendType {
      UNDEFINED_BACKEND,
      GPU_BACKEND,
      HTP_BACKEND,
      DSP_BACKEND
    }

    public enum HtpPrecision {
      HTP_PRECISION_QUANTIZED,
      HTP_PRECISION_FP16
    }

    public void setBackendType(BackendType type) {}

    public void setSkelLibraryDir(String folder) {}

    public void setCacheDir(String folder) {}

    public void setModelToken(String token) {}

    public void setHtpPrecision(HtpPrecision precision) {}
  }

  public QnnDelegate(Options options) {}

  public static boolean checkCapability(Capability capability) {
    return false;
  }

  @Override
  public long getNativeHandle() {
    return 0;
  }

  @Override
  public void close() {}
}
