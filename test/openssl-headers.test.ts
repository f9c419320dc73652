// The constants and functions that native/openssl.h declares by hand, against OpenSSL's own headers, where there are any.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'

const HEADERS = '/usr/include/openssl/ssl.h'

const SOURCE = `
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#define OPENSSL_LISTS_ONLY
#include "openssl.h"
#define CHECK_CONSTANT(name, value) _Static_assert((long)(name) == (long)(value), #name);
#define CHECK_FUNCTION(returns, name, arguments) \\
  _Static_assert(__builtin_types_compatible_p(__typeof__(&name), returns(*) arguments), #name);
OPENSSL_CONSTANTS(CHECK_CONSTANT)
OPENSSL_FUNCTIONS(CHECK_FUNCTION)
`

it.skipIf(!existsSync(HEADERS))('what is declared by hand is what OpenSSL 3 has', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'ringloop-openssl-'))
  try {
    const file = path.join(folder, 'check.c')
    writeFileSync(file, SOURCE)
    const native = path.resolve(import.meta.dirname, '..', 'native')
    const compiler = process.env.CC ?? 'cc'
    const { status, stderr } = spawnSync(compiler, ['-I', native, '-fsyntax-only', file], {
      encoding: 'utf8',
    })
    expect(stderr).toBe('')
    expect(status).toBe(0)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
