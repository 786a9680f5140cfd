#define BOOST_TEST_MODULE vcpu
#include <boost/test/unit_test.hpp>
