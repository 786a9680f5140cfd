#define BOOST_TEST_MODULE vmm
#include <boost/test/unit_test.hpp>
