export { quic } from '@chainsafe/libp2p-quic'
