// Weights that integrate the polynomial through known values: what makes Adams' methods, on equal steps or not, out of
// plain integrals (Adams-Bashforth) and out of exponential ones (Hochbruck & Ostermann 2010, "Exponential integrators",
// section 2.5).
#include <cmath>
#include <utility>

#include "solvers.h"

namespace x2ct {
namespace {

// w with sum_k w_k u_k^j = moments[j] for every j: for each node, its Lagrange polynomial written in powers of u.
std::vector<double> weights(const std::vector<double>& nodes, const std::vector<double>& moments) {
    std::vector<double> found;
    for (std::size_t k = 0; k < nodes.size(); ++k) {
        std::vector<double> lagrange = {1};  // coefficients of 1, u, u^2, ...
        for (std::size_t m = 0; m < nodes.size(); ++m) {
            if (m == k) continue;
            const double gap = nodes[k] - nodes[m];
            std::vector<double> product(lagrange.size() + 1, 0.0);  // times (u - u_m) / (u_k - u_m)
            for (std::size_t j = 0; j < lagrange.size(); ++j) {
                product[j] -= lagrange[j] * nodes[m] / gap;
                product[j + 1] += lagrange[j] / gap;
            }
            lagrange = std::move(product);
        }
        double weight = 0;
        for (std::size_t j = 0; j < lagrange.size(); ++j) weight += lagrange[j] * moments[j];
        found.push_back(weight);
    }
    return found;
}

// The integral of h e^(-h (1 - u)) u^j over [0, 1].
double exponential_moment(double h, int j) {
    if (h > 1) {  // by parts: 1 - (j / h) times the one before
        double moment = -std::expm1(-h);
        for (int i = 1; i <= j; ++i) moment = 1 - i / h * moment;
        return moment;
    }
    double term = h / (j + 1), sum = 0;  // a small h would cancel there: sum_k h (-h)^k j! / (j + k + 1)!
    for (int k = 1; k < 24; ++k) {
        sum += term;
        term *= -h / (j + k + 1);
    }
    return sum;
}

}  // namespace

std::vector<double> polynomial_weights(const std::vector<double>& nodes) {
    std::vector<double> moments(nodes.size());
    for (std::size_t j = 0; j < nodes.size(); ++j) moments[j] = 1.0 / static_cast<double>(j + 1);
    return weights(nodes, moments);
}

std::vector<double> exponential_weights(double h, const std::vector<double>& nodes) {
    std::vector<double> moments(nodes.size());
    for (std::size_t j = 0; j < nodes.size(); ++j) moments[j] = exponential_moment(h, static_cast<int>(j));
    return weights(nodes, moments);
}

}  // namespace x2ct
