extension JSON {
  /// The members of a JSON object, in the order of the text, found by the bytes of their keys.
  public struct Object: Equatable, Sendable {
    /// A key with its value.
    public struct Member: Equatable, Sendable {
      /// The key, compared by bytes.
      public let key: String
      /// The value.
      public internal(set) var value: JSON

      /// Whether key (by bytes) and value agree.
      public static func == (left: Member, right: Member) -> Bool {
        left.key.hasSameBytes(as: right.key) && left.value == right.value
      }
    }

    /// The members in order; no two keys are the same bytes.
    public private(set) var members: [Member] = []
    private var indices: [ByteKey: Int] = [:]

    /// An object without members.
    public init() {}

    /// The number of members.
    public var count: Int { members.count }

    /// The keys in order.
    public var keys: [String] { members.map(\.key) }

    /// The value under a key, compared by bytes. Setting a new key appends it, setting nil removes the member.
    ///
    /// - Complexity: O(length of the key); removal O(members).
    public subscript(key: String) -> JSON? {
      get { indices[ByteKey(key)].map { members[$0].value } }
      set {
        let index = indices[ByteKey(key)]
        switch (index, newValue) {
        case (nil, nil): break
        case (nil, let value?): _ = insert(key, value)
        case (let index?, let value?): members[index].value = value
        case (let index?, nil):
          members.remove(at: index)
          indices = Dictionary(uniqueKeysWithValues: members.enumerated().map { (ByteKey($1.key), $0) })
        }
      }
    }

    /// Appends a member; returns false, and changes nothing, if the key is there already.
    mutating func insert(_ key: String, _ value: JSON) -> Bool {
      let key = (text: key, bytes: ByteKey(key))
      guard indices[key.bytes] == nil else { return false }
      indices[key.bytes] = members.count
      members.append(Member(key: key.text, value: value))
      return true
    }

    /// Whether both have the same keys with the same values, in whatever order.
    public static func == (left: Object, right: Object) -> Bool {
      left.count == right.count && left.members.allSatisfy { right[$0.key] == $0.value }
    }
  }
}
