"""How this core was compiled."""

cdef extern from *:
    """
    #ifndef CRA_FLAVOUR
    #define CRA_FLAVOUR "unknown"
    #endif
    #if defined(__clang__)
    #define CRA_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define CRA_COMPILER "gcc " __VERSION__
    #elif defined(_MSC_VER)
    #define CRA_COMPILER "msvc"
    #else
    #define CRA_COMPILER "unknown"
    #endif
    """
    const char* CRA_FLAVOUR
    const char* CRA_COMPILER

build_flavour: str = CRA_FLAVOUR.decode("ascii")
compiler: str = CRA_COMPILER.decode("ascii")
