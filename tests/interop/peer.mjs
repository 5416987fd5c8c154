// A js-libp2p node that the tests drive: one JSON request a line on standard input, one JSON answer
// a line on standard output ({"id", "result"} or {"id", "error"}). It ends with its standard input.

import { createHash, randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { autoNAT } from '@libp2p/autonat'
import { autoNATv2 } from '@libp2p/autonat-v2'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { dcutr } from '@libp2p/dcutr'
import { identify, identifyPush } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { Circuit } from '@multiformats/multiaddr-matcher'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'

const ECHO = '/interop/echo/1.0.0' // sends back what it gets
const SINK = '/interop/sink/1.0.0' // reads to the end, then sends "<bytes> <sha256 in hex>"
const SOURCE = '/interop/source/1.0.0' // reads a count of bytes in decimal to the end, then sends them
const SERVED = { maxInboundStreams: 256, maxOutboundStreams: 256, runOnLimitedConnection: true }
const PIECE = 256 * 1024

let node
let sourced = null // the hash of what SOURCE sent last

async function send (stream, data) {
  if (!stream.send(data)) {
    await stream.onDrain()
  }
}

async function sendRandom (stream, bytes) {
  const hash = createHash('sha256')
  for (let left = bytes; left > 0;) {
    const data = randomBytes(Math.min(left, PIECE))
    hash.update(data)
    await send(stream, data)
    left -= data.length
  }
  await stream.close()
  return hash.digest('hex')
}

// Calls `take` with each piece until the end. (Iterating over a stream may lose the last pieces,
// or wait without end, when the end comes along with them.)
function read (stream, take) {
  return new Promise((resolve, reject) => {
    stream.addEventListener('close', ({ error }) => { if (error != null) reject(error) })
    stream.addEventListener('end', resolve)
    stream.addEventListener('message', ({ data }) => { take(data.subarray()) })
    if (stream.readableEnded) {
      resolve()
    }
  })
}

async function digest (stream) {
  const hash = createHash('sha256')
  let bytes = 0
  await read(stream, (data) => {
    hash.update(data)
    bytes += data.length
  })
  return { bytes, sha256: hash.digest('hex') }
}

async function readAll (stream) {
  const parts = []
  await read(stream, (data) => { parts.push(data) })
  return Buffer.concat(parts)
}

function resetOnError (handler) {
  return async (stream) => {
    try {
      await handler(stream)
    } catch (error) {
      stream.abort(error)
    }
  }
}

const handlers = {
  [ECHO]: async (stream) => {
    await read(stream, (data) => { stream.send(data) })
    await stream.close()
  },
  [SINK]: async (stream) => {
    const { bytes, sha256 } = await digest(stream)
    await send(stream, Buffer.from(`${bytes} ${sha256}`))
    await stream.close()
  },
  [SOURCE]: async (stream) => {
    const count = Number((await readAll(stream)).toString())
    sourced = await sendRandom(stream, count)
  }
}

async function collect (events) {
  const counts = {}
  const found = {}
  for await (const event of events) {
    counts[event.name] = (counts[event.name] ?? 0) + 1
    const peers = event.name === 'PROVIDER' ? event.providers : event.name === 'FINAL_PEER' ? [event.peer] : []
    for (const peer of peers) {
      found[peer.id.toString()] = peer.multiaddrs.map(String)
    }
  }
  return { counts, found }
}

// A connection that leads there without a relay, if there is one.
const known = (peer) => {
  const connections = node.getConnections(peerIdFromString(peer))
  return connections.find(({ remoteAddr }) => !Circuit.matches(remoteAddr)) ?? connections[0]
}

const requests = {
  // kad: the id of a DHT's protocol, or nothing for a node without one
  // listen, announce: addresses; a place at a relay is `<the relay's address>/p2p-circuit`
  // relay: 'limited' or 'unlimited': serve as one
  // autonat: 1 or 2: test addresses, for itself and for others
  // punch: take part in hole punching
  // transport: 'quic': that one instead of TCP
  start: async ({ seed, kad, listen, announce, relay, autonat, punch, transport }) => {
    const overQuic = transport === 'quic'
    listen ??= [overQuic ? '/ip4/127.0.0.1/udp/0/quic-v1' : '/ip4/127.0.0.1/tcp/0']
    const services = { identify: identify(), identifyPush: identifyPush(), ping: ping() }
    if (relay != null) {
      services.relay = circuitRelayServer({ reservations: { applyDefaultLimit: relay === 'limited' } })
    }
    if (autonat != null) {
      services.autonat = autonat === 1 ? autoNAT() : autoNATv2()
    }
    if (punch === true) {
      services.punch = dcutr()
    }
    if (kad != null) {
      services.dht = kadDHT({
        protocol: kad,
        clientMode: false,
        peerInfoMapper: passthroughMapper, // by default private addresses are hidden from others
        allowQueryWithZeroPeers: true, // a query does not wait for the first one of the node itself
        initialQuerySelfInterval: 3_600_000
      })
    }
    node = await createLibp2p({
      privateKey: await generateKeyPairFromSeed('Ed25519', Buffer.from(seed, 'hex')),
      addresses: { listen, announce },
      transports: [overQuic ? (await import('./quic/index.mjs')).quic() : tcp(), circuitRelayTransport()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      connectionGater: { denyDialMultiaddr: () => false }, // by default loopback is not dialled
      services
    })
    for (const [protocol, handler] of Object.entries(handlers)) {
      await node.handle(protocol, resetOnError(handler), SERVED)
    }
    return { peer: node.peerId.toString(), addrs: node.getMultiaddrs().map(String) }
  },
  dial: async ({ addr }) => {
    const connection = await node.dial(multiaddr(addr))
    return { peer: connection.remotePeer.toString(), direction: connection.direction }
  },
  // take a place at a relay: `<its address>/p2p-circuit`
  reserve: async ({ addr }) => {
    await node.components.transportManager.listen([multiaddr(addr)])
    return node.getMultiaddrs().map(String)
  },
  // what identify told of the other side
  identity: async ({ peer }) => {
    const { addresses, protocols, metadata } = await node.peerStore.get(peerIdFromString(peer))
    const text = (name) => Buffer.from(metadata.get(name) ?? []).toString()
    return {
      addrs: addresses.map(({ multiaddr }) => multiaddr.toString()),
      protocols,
      agent: text('AgentVersion'),
      version: text('ProtocolVersion')
    }
  },
  protocols: () => node.getProtocols(),
  addrs: () => node.getMultiaddrs().map(String),
  // all addresses that it takes for its own, and whether it knows that others reach it there
  verdicts: () => Object.fromEntries(node.components.addressManager.getAddressesWithMetadata()
    .map(({ multiaddr, verified }) => [multiaddr.toString(), verified])),
  // what servers have answered so far about addresses on which no verdict has fallen
  tested: () => {
    const results = node.services.autonat.dialResults ?? node.services.autonat.client.dialResults
    return Object.fromEntries([...results].map(([addr, { success, failure }]) => [addr, { success, failure }]))
  },
  // the connections with one peer
  paths: ({ peer }) => node.getConnections(peerIdFromString(peer)).map((connection) => ({
    addr: connection.remoteAddr.toString(),
    direction: connection.direction,
    limited: connection.limits != null
  })),
  connections: () => node.getConnections().map(({ remotePeer }) => remotePeer.toString()),
  streams: ({ peer }) => known(peer).streams.map(({ protocol }) => protocol),
  ping: async ({ peer }) => await node.services.ping.ping(peerIdFromString(peer)),
  push: async ({ peer, bytes }) => {
    const stream = await known(peer).newStream(SINK, SERVED)
    const sha256 = await sendRandom(stream, bytes)
    return { sha256, answer: (await readAll(stream)).toString() }
  },
  pull: async ({ peer, bytes }) => {
    const stream = await known(peer).newStream(SOURCE, SERVED)
    await send(stream, Buffer.from(String(bytes)))
    await stream.close()
    return await digest(stream)
  },
  sourced: () => sourced,
  echoes: async ({ peer, count, bytes }) => {
    const one = async () => {
      const stream = await known(peer).newStream(ECHO, SERVED)
      const data = randomBytes(bytes)
      await send(stream, data)
      await stream.close()
      return (await readAll(stream)).equals(data)
    }
    const answers = await Promise.all(Array.from({ length: count }, one))
    return answers.filter(Boolean).length
  },
  open: async ({ peer, protocol }) => {
    const stream = await known(peer).newStream(protocol, SERVED)
    await stream.close()
    return stream.protocol
  },
  serve: async ({ protocol }) => { await node.handle(protocol, resetOnError(handlers[ECHO])) },
  hangup: async ({ peer }) => { await node.hangUp(peerIdFromString(peer)) },
  table: () => node.services.dht.routingTable.size,
  provide: async ({ cid }) => await collect(node.services.dht.provide(CID.parse(cid))),
  providers: async ({ cid }) => await collect(node.services.dht.findProviders(CID.parse(cid))),
  find: async ({ peer }) => await collect(node.services.dht.findPeer(peerIdFromString(peer))),
  stop: async () => { await node.stop() }
}

function answer (message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, request, ...rest } = JSON.parse(line)
  Promise.resolve().then(() => requests[request](rest)).then(
    (result) => answer({ id, result: result ?? null }),
    (error) => answer({ id, error: `${error.name}: ${error.message}` })
  )
}
process.exit(0)
