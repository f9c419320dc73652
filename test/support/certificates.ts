/** Certificates for tests, made with the `openssl` program: an authority and what it signs. One folder per test file. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

export interface Credentials {
  readonly key: string
  readonly cert: string
  /** Whoever trusts this trusts `cert`. */
  readonly ca: string
}

export interface CertificateOptions {
  /** DNS names and addresses. Default `localhost`, `127.0.0.1`, `::1`. */
  readonly names?: readonly string[]
  readonly commonName?: string
  /** Default an elliptic curve, which is fast. */
  readonly rsa?: boolean
  /** Who signs it, in place of the authority; one of `issue`, which is no authority. */
  readonly signer?: Pick<Credentials, 'key' | 'cert'>
  /** Encrypts the key. */
  readonly passphrase?: string
}

const LOCAL = ['localhost', '127.0.0.1', '::1']
const DAYS = '36500'
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
const RSA = ['-newkey', 'rsa:2048']

/** An authority of its own, in a folder that `remove` deletes. */
export class Authority {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'ringloop-tls-'))
  readonly cert: string
  #issued = 0

  constructor(name = 'ringloop test authority') {
    this.#openssl([
      'req',
      '-x509',
      ...EC,
      '-nodes',
      '-days',
      DAYS,
      '-subj',
      `/CN=${name}`,
      ...this.#out('ca'),
    ])
    this.cert = this.#read('ca.cert')
  }

  issue(options: CertificateOptions = {}): Credentials {
    const { names = LOCAL, commonName = names[0] ?? 'nobody', rsa = false, passphrase } = options
    const id = `issued-${this.#issued++}`
    const secret = passphrase === undefined ? ['-nodes'] : ['-passout', `pass:${passphrase}`]
    this.#openssl(['req', ...(rsa ? RSA : EC), ...secret, '-subj', `/CN=${commonName}`, ...this.#out(id)])
    writeFileSync(this.#path(`${id}.ext`), `subjectAltName=${names.map(altName).join(',')}\n`)
    const [cert, key] = this.#signer(`${id}.signer`, options.signer)
    const signer = ['-CA', cert, '-CAkey', key, '-CAcreateserial']
    const extensions = ['-extfile', this.#path(`${id}.ext`)]
    const signed = ['-in', this.#path(`${id}.cert`), '-out', this.#path(`${id}.signed`)]
    this.#openssl(['x509', '-req', '-days', DAYS, ...signer, ...extensions, ...signed])
    return { key: this.#read(`${id}.key`), cert: this.#read(`${id}.signed`), ca: this.cert }
  }

  /** Where `content` lies as a file. */
  file(name: string, content: string): string {
    writeFileSync(this.#path(name), content)
    return this.#path(name)
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }

  #signer(name: string, signer: CertificateOptions['signer']): [string, string] {
    if (signer === undefined) return [this.#path('ca.cert'), this.#path('ca.key')]
    return [this.file(`${name}.cert`, signer.cert), this.file(`${name}.key`, signer.key)]
  }

  #path(name: string): string {
    return path.join(this.#folder, name)
  }

  #out(id: string): string[] {
    return ['-keyout', this.#path(`${id}.key`), '-out', this.#path(`${id}.cert`)]
  }

  #read(name: string): string {
    return readFileSync(this.#path(name), 'utf8')
  }

  #openssl(args: readonly string[]): void {
    execFileSync('openssl', args, { stdio: 'pipe' })
  }
}

function altName(name: string): string {
  return /^[\d.]+$|:/.test(name) ? `IP:${name}` : `DNS:${name}`
}
