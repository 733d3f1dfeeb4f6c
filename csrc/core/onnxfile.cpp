#include "core/onnxfile.h"

#include <stdexcept>

#include "core/fields.h"

namespace x2ct {
namespace {

constexpr int kDeepest = 8;             // graphs inside nodes; ours have none
constexpr std::uint64_t kExternal = 1;  // TensorProto.DataLocation.EXTERNAL

// The bytes are not what onnx.proto describes.
class Malformed : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// One field of a message: a number, or bytes.
struct Field {
    std::uint64_t number;
    bool is_bytes;
    std::uint64_t value;
    std::string_view bytes;

    std::string_view message() const {
        if (!is_bytes) throw Malformed("a number where a message belongs");
        return bytes;
    }
    std::string text() const {
        if (!is_bytes) throw Malformed("a number where a text belongs");
        if (!is_utf8(bytes)) throw Malformed("broken text");
        return std::string(bytes);
    }
    std::uint64_t integer() const {
        if (is_bytes) throw Malformed("bytes where a number belongs");
        return value;
    }
};

std::uint64_t varint(std::string_view& data) {
    std::uint64_t value = 0;
    for (int shift = 0; !data.empty() && shift <= 63; shift += 7) {
        const auto byte = static_cast<unsigned char>(data.front());
        data.remove_prefix(1);
        if (shift == 63 && byte > 1) break;  // more than 64 bits
        value |= std::uint64_t{byte & 0x7Fu} << shift;
        if (byte < 0x80) return value;
    }
    throw Malformed("a broken varint");
}

// Calls visit(field) on one message's fields in the file's order; fixed-width ones are passed over.
template <typename Visit>
void each_field(std::string_view message, const Visit& visit) {
    while (!message.empty()) {
        const std::uint64_t key = varint(message);
        const auto kind = static_cast<int>(key & 7);
        if (kind == 0) {
            visit(Field{key >> 3, false, varint(message), {}});
            continue;
        }
        if (kind != 1 && kind != 2 && kind != 5) throw Malformed("wire type " + std::to_string(kind));
        const std::uint64_t length = kind == 2 ? varint(message) : kind == 1 ? 8 : 4;
        if (length > message.size()) throw Malformed("it ends early");
        if (kind == 2) visit(Field{key >> 3, true, 0, message.substr(0, length)});
        message.remove_prefix(length);
    }
}

void check_tensor(std::string_view tensor) {
    each_field(tensor, [](const Field& field) {
        const bool elsewhere = field.number == 14 && !field.is_bytes && field.value == kExternal;
        if (field.number == 13 || elsewhere) throw Malformed("external data");
    });
}

void check_sparse(std::string_view tensor) {
    each_field(tensor, [](const Field& field) {
        if (field.number == 1 || field.number == 2) check_tensor(field.message());
    });
}

void check_graph(std::string_view graph, int depth);

void check_attribute(std::string_view attribute, int depth) {
    each_field(attribute, [&](const Field& field) {
        switch (field.number) {
            case 5:
            case 10:
                return check_tensor(field.message());
            case 6:
            case 11:
                return check_graph(field.message(), depth + 1);
            case 22:
            case 23:
                return check_sparse(field.message());
            default:
                return;
        }
    });
}

void check_node(std::string_view node, int depth) {
    each_field(node, [&](const Field& field) {
        if (field.number == 7) {
            const std::string domain = field.text();
            if (!domain.empty() && domain != "ai.onnx") throw Malformed("an operator of domain '" + domain + "'");
        }
        if (field.number == 5) check_attribute(field.message(), depth);
    });
}

void check_graph(std::string_view graph, int depth) {
    if (depth > kDeepest) throw Malformed("graphs nested too deep");
    each_field(graph, [&](const Field& field) {
        if (field.number == 1) check_node(field.message(), depth);
        if (field.number == 5) check_tensor(field.message());
        if (field.number == 15) check_sparse(field.message());
    });
}

std::string dtype_of(std::uint64_t code) {  // TensorProto.DataType, those that a network's contract may use
    switch (code) {
        case 1:
            return "float32";
        case 7:
            return "int64";
        case 10:
            return "float16";
        case 16:
            return "bfloat16";
        default:
            return "type " + std::to_string(code);
    }
}

Extent extent(std::string_view dimension) {
    Extent found{0, "?"};
    each_field(dimension, [&](const Field& field) {
        if (field.number == 1) found = {static_cast<std::int64_t>(field.integer()), ""};
        if (field.number == 2) found = {0, field.text()};
    });
    return found;
}

void read_tensor_type(std::string_view type, Tensor& tensor) {
    each_field(type, [&](const Field& field) {
        if (field.number == 1) tensor.dtype = dtype_of(field.integer());
        if (field.number != 2) return;
        each_field(field.message(), [&](const Field& inner) {
            if (inner.number == 1) tensor.shape.push_back(extent(inner.message()));
        });
    });
}

Tensor value_info(std::string_view value) {
    Tensor tensor;
    each_field(value, [&](const Field& field) {
        if (field.number == 1) tensor.name = field.text();
        if (field.number != 2) return;
        each_field(field.message(), [&](const Field& type) {
            if (type.number != 1) throw Malformed("an input or output that is no tensor");
            tensor.dtype.clear(), tensor.shape.clear();
            read_tensor_type(type.message(), tensor);
        });
    });
    return tensor;
}

void read_opset(std::string_view import, GraphFacts& facts) {
    std::string domain;
    std::uint64_t version = 0;
    each_field(import, [&](const Field& field) {
        if (field.number == 1) domain = field.text();
        if (field.number == 2) version = field.integer();
    });
    if (domain.empty() || domain == "ai.onnx") facts.opset = version;
}

GraphFacts read(std::string_view model) {
    GraphFacts facts;
    bool seen = false;
    each_field(model, [&](const Field& field) {
        if (field.number == 7) {
            seen = true;
            check_graph(field.message(), 0);
            each_field(field.message(), [&](const Field& inner) {
                if (inner.number == 11) facts.inputs.push_back(value_info(inner.message()));
                if (inner.number == 12) facts.outputs.push_back(value_info(inner.message()));
            });
        } else if (field.number == 8) {
            read_opset(field.message(), facts);
        } else if (field.number == 20 || field.number == 25) {
            throw Malformed(field.number == 20 ? "training information" : "functions");
        }
    });
    if (!seen) throw Malformed("no graph");
    return facts;
}

}  // namespace

GraphFacts read_graph(const std::string& source, std::string_view data) {
    try {
        return read(data);
    } catch (const Malformed& error) {
        refuse(source, "ONNX model", error.what(), "one self-contained graph of ai.onnx operators");
    }
}

}  // namespace x2ct
