/** Protocol Buffers messages with their type's name in front, on the wire as gev's protobuf plugin has them. */
export {
  type AnyMessage,
  type MessageType,
  type ProtobufOptions,
  ProtobufProtocol,
  type TypeRegistry,
} from './protobuf-protocol.js'
